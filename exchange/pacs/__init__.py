"""PACS: find, fetch, store and receive DICOM instances over DICOMweb (DICOM PS3.18) and DIMSE (DICOM PS3.4, PS3.7)."""
