"""The demo page, which shows the classes and attention maps of a picture."""
