"""Looking inside: the debugger, the page, the weights, and proofs about a run. Uses all rooms but
the commands.
"""
