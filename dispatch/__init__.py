"""From an enqueued batch to final statuses: claims, the provider, receipts."""
