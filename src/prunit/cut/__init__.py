"""The cut: which channels stay, and a smaller network, a mask, an optimiser and files made from that."""
