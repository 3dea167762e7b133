"""A gallery on Milvus, for those who outgrow one machine: the same operations, the same answers."""
