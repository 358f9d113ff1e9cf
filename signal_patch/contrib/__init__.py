"""Optional parts: whoever does not install them pays nothing for them."""
