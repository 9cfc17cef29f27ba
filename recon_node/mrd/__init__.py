"""Raw data: files of several kinds, MRD streams, the MRD server and client, Gadgetron's module protocol."""
