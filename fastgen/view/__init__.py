"""`fastgen view`: a page on which people look at what runs have made. It reads run folders and never writes there."""
