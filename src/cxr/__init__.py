"""CXR Lab: chest X-ray classification from DICOM studies or image folders to a model whose worth is shown.

Importing this package imports neither torch nor any tracker; each room imports what it needs.
"""

__version__ = "0.1.0"
