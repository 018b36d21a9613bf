"""Publishers' files, archives, masks and lists to arrays."""
