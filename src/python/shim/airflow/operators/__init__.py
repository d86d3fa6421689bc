"""Only a way to what is below."""
