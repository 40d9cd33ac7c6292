"""Builders of class trees from sources other than an outline."""
