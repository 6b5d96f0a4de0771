"""wisp: a small cloud for one to ten rack units of machines."""
__version__ = "0.1.0"
