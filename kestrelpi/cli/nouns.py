"""The first words of commands, with their help."""

NOUNS = {
    "images": "Build, list, compare and roll back images.",
    "nodes": "Register, list, change and reach nodes.",
    "groups": "List groups of nodes.",
    "users": "Add, remove and list users of the cluster.",
    "modules": "List, show, enable and disable modules: what nodes can do.",
    "apt": "Install, remove and upgrade packages of an image, with a history.",
    "reconfigure": "Bring the frontend and the images to the configuration.",
    "serve": "Run the boot services in the foreground.",
    "status": "What runs, and what each node is doing.",
    "doctor": "What is wrong with the frontend or a node, why, and what to do.",
    "verify": "Check that the cluster computes.",
    "lab": "Emulated Pis that boot from the real services.",
}
