"""What a study has on disk: what is made, stale, failed and left to do, and what it takes up."""
