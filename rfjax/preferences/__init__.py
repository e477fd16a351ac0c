"""People's preferences between models (SD3, Figs. 7 and 8): pairs of pictures in a browser, votes in a file, ratings.

    samples    sets of pictures with their prompts
    pairs      what is compared, and what each rater sees in which order
    votes      the file of votes, which only grows
    ballots    who may vote on what, now
    server     the page and its answers over HTTP
    findings   ratings, agreement and habits from the votes
    report     the page of results

The command is in `__main__`. Imports no JAX.
"""
