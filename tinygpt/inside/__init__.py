"""Looking inside: the debugger, the page, the weights, and proofs about a run. Imports all parts
but the commands.
"""
