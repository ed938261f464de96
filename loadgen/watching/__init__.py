"""What `loadgen watch` is made of: a coordinator's answers, what was seen of them, and the page."""
