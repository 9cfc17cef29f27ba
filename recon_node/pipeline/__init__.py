"""The way of the data, from a source to DICOM in the queue."""
