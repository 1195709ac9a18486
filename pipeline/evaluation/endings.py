"""Words with which no complete caption ends."""

# Articles, prepositions, forms of "to be", conjunctions.
BAD_ENDINGS = (
    *("a", "an", "the", "this", "that", "its", "his", "her", "their", "some"),
    *("in", "on", "at", "of", "for", "with", "by", "to", "from", "into", "onto", "upon", "near", "next", "over"),
    *("under", "behind", "before", "after", "above", "below", "beside", "between", "through", "while", "as"),
    *("is", "are", "am", "was", "were", "be", "being", "has", "have"),
    *("and", "or", "but", "very"),
)
