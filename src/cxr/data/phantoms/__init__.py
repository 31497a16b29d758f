"""Synthetic chest radiographs with known findings: drawn, written as DICOM studies or image folders."""
