"""Many cells from one plan file: here, in several processes, or on a cluster; only what is missing runs."""
