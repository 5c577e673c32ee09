"""What a device measures: variants and single layers, and the profile that comes of it."""
