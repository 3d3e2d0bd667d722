"""The relay between the tools a team works with and its Compass catalogue."""
