"""What the marks that records carry teach: a network of them alone, held against people's marks."""
