"""What Postern answers over HTTP: report links, health and metrics."""
