"""A run as a page: its record becomes content, and content becomes HTML, pictures or Markdown."""
