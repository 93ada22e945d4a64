"""What every machine config is made of: chips with the sources of their figures, and meshes.

Figures of one chip. hbm_bytes: its memory. peak_flops: of products of bfloat16, a second.
hbm_bandwidth: of its memory, bytes a second. link_bandwidth: bytes a second that it sends over
all links of the fast network. dcn_bandwidth: its share of what a host sends into the data
centre's network.

Sources: [v5e] cloud.google.com/tpu/docs/v5e; [v5p] .../docs/v5p; [v6e]
.../docs/v6e; [h100] NVIDIA H100 Tensor Core GPU data sheet, SXM.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

V5E = dict(
    kind="TPU v5 lite",
    hbm_bytes=16 * 10**9,  # [v5e]
    peak_flops=197e12,  # [v5e]
    hbm_bandwidth=819e9,  # [v5e]
    link_bandwidth=200e9,  # [v5e], 1600 Gbps, over four ports
    dcn_bandwidth=3.125e9,  # [v5e], 6.4 Tbps a pod of 256
)
V5P = dict(
    kind="TPU v5",
    hbm_bytes=95 * 2**30,  # [v5p]
    peak_flops=459e12,  # [v5p]
    hbm_bandwidth=2765e9,  # [v5p]
    link_bandwidth=600e9,  # [v5p], 1200 GB/s in both directions
    dcn_bandwidth=6.25e9,  # [v5p], 50 Gbps
)
V6E = dict(
    kind="TPU v6 lite",
    hbm_bytes=32 * 10**9,  # [v6e]
    peak_flops=918e12,  # [v6e]
    hbm_bandwidth=1600e9,  # [v6e]
    link_bandwidth=400e9,  # [v6e], 3200 Gbps, over four ports
    dcn_bandwidth=12.5e9,  # [v6e], 25.6 Tbps a pod of 256
)
H100 = dict(
    kind="NVIDIA H100 80GB HBM3",
    hbm_bytes=80 * 10**9,  # [h100]
    peak_flops=989e12,  # [h100], without sparsity
    hbm_bandwidth=3350e9,  # [h100]
    link_bandwidth=450e9,  # [h100], NVLink, 900 GB/s in both directions
    dcn_bandwidth=50e9,  # one port of 400 Gbps for each GPU, as NVIDIA's DGX H100 has
)
CPU = dict(  # nominal, of two cores of a server: no chip to be rented
    kind="cpu",
    hbm_bytes=16 * 10**9,
    peak_flops=2e11,
    hbm_bandwidth=2e10,
    link_bandwidth=1e10,
    dcn_bandwidth=1e9,
)

TPU_ENVIRONMENT = dict(
    LIBTPU_INIT_ARGS=" ".join(
        (
            # Convolutions nested in loops overflow the stacks of the compiler of libtpu 0.0.42.
            "--fibers_default_thread_stack_size=8388608",
            # Gradients of split weights are summed whole: sums that travel while their product is
            # computed in a part for each chip take longer to compile and double the memory traffic.
            "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000",
        )
    )
)
GPU_ENVIRONMENT = dict(
    XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true",  # sums gradients meanwhile
    XLA_PYTHON_CLIENT_MEM_FRACTION="0.92",
)


def machine(
    name: str,
    chip: dict,
    *,
    platform: str,
    processes: int,
    local_devices: int,
    pairs_per_chip: int,
    fsdp: int = 1,
    slices: int = 1,
    topology: str | None = None,
    remat: bool = False,
    environment: dict | None = None,
) -> ConfigDict:
    """A machine's config.

    Args:
      name: of the machine.
      chip: one of the tables above.
      platform: "tpu", "gpu" or "cpu".
      processes: how many a run has, one a host.
      local_devices: chips of each.
      pairs_per_chip: image-report pairs that the full-size configs leave room for.
      fsdp: chips over which parameters are split; the others hold copies.
      slices: groups of chips with a fast network of their own.
      topology: as libtpu names it.
      remat: whether activations are computed again rather than kept.
      environment: variables to start the processes with.
    """
    axes = dict(dcn=slices) if slices > 1 else {}
    # A bank of 512 prototypes is smaller than the sentences that it would be split among; a large
    # one goes over the chips that parameters do: --machine.mesh.bank_axis=fsdp.
    mesh = dict(
        axes=axes | dict(data=-1, fsdp=fsdp),
        data_axes=(*axes, "data", "fsdp"),
        bank_axis=placeholder(str),
        fsdp_axis="fsdp" if fsdp > 1 else placeholder(str),
    )
    return ConfigDict(
        dict(
            name=name,
            platform=platform,
            topology=placeholder(str) if topology is None else topology,
            slices=slices,
            processes=processes,
            local_devices=local_devices,
            chip=dict(chip),
            mesh=mesh,
            pairs_per_chip=pairs_per_chip,
            remat=dict(image="block" if remat else "none", text="layer" if remat else "none"),
            environment=environment or {},
        )
    )


def tpu(name: str, chip: dict, *, topology: str, chips: int, wraps: bool, **options) -> ConfigDict:
    """A TPU slice whose hosts have four chips each.

    Args:
      name: of the machine.
      chip: one of the tables above.
      topology: as libtpu names it.
      chips: of the slice.
      wraps: whether the ends of each axis are linked; a line sends half as fast as a ring.
      **options: see `machine`.
    """
    if not wraps:
        chip = chip | dict(link_bandwidth=chip["link_bandwidth"] / 2)
    return machine(
        name,
        chip,
        platform="tpu",
        processes=chips // 4,
        local_devices=4,
        topology=topology,
        environment=TPU_ENVIRONMENT,
        **options,
    )
