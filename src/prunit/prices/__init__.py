"""What a network costs at any widths: exact counts, and times and energy from a device's profile."""
