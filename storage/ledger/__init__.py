"""The ledger: everything that changes state, one function a transition, one transaction each.

A transition names the state that it starts from, so doing it twice, or late, changes nothing the second time.
Whatever has to follow (a job, a notice) is written in the same transaction.
"""
