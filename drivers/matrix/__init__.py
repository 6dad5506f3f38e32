"""An array behind a switch matrix: wiring, routes, and the chains that carry a row out."""
