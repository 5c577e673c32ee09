"""Which variant runs: the switcher, the policies that decide, what they read, and the same on traces."""
