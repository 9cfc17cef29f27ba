"""Two folders of DICOM images compared: pairs by their place in the patient, figures, a page."""
