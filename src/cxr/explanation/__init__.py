"""What the net of a bundle looks at, put beside what its predictions say."""
