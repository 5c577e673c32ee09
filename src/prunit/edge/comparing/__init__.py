"""Variants compared beyond noise, and what is to be said of each."""
