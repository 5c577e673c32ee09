"""Every variant of a portfolio on labelled images, as a device runs it: decoding, preprocessing, engine. No torch."""
