"""What the types of beats and the rhythms that long records carry teach: small networks of them alone, held against people's."""
