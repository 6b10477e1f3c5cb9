"""Multiple choice on chat: lm-eval's tasks for suppliers that do not echo log-probabilities.

lm-eval compares the log-probabilities of a doc's options, which chat endpoints do not give. Here the options
are shown with letters, in an order drawn per doc and epoch, and the model ends its answer with the letter it
chooses. The metric is ``letter_acc``, never ``acc``: the two are not the same measurement.

Belongs here: from a doc to a question (:mod:`.convert`), the order of its options (:mod:`.shuffle`), the chat
(:mod:`.prompt`), from an answer to a letter (:mod:`.extract`) and a score (:mod:`.scoring`), and what ties
them to lm-eval's docs (:mod:`.adapter`, which runs in a worker process). Does not: loading data, relaying.
"""
