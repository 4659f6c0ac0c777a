"""The bug zoo: bugs that hand-written engines have had, kept as small patches that the suite must
notice.
"""
