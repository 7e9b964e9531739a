"""The live web page of an output folder."""
