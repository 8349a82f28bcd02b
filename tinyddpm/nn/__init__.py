NETWORKS: dict[str, Any] = {"UNet": UNet}
NETWORKS |= {"SelfConditioned": "tinyddpm.extensions.self_conditioning:SelfConditioned"}
NETWORKS |= {"TwoTimes": "tinyddpm.extensions.few_steps:TwoTimes"}
