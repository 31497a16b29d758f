"""Models made of models: how members are weighed, mixed and measured. Knows nothing of how a member was trained."""
