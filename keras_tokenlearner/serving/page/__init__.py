"""The demo page: pictures in, classes and attention maps out."""
