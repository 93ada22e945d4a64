"""The parts of every machine config: chips with the sources of their figures, and meshes.

Figures of one chip. hbm_bytes: size of the memory, in bytes. peak_flops: operations per second in
bfloat16 products. hbm_bandwidth: bytes per second of the memory. link_bandwidth: bytes per second
that the chip sends over all links of the fast network. dcn_bandwidth: the chip's share of the bytes
per second that a host sends into the data centre's network.

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
    dcn_bandwidth=3.125e9,  # [v5e], 6.4 Tbps for a pod of 256
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
    dcn_bandwidth=12.5e9,  # [v6e], 25.6 Tbps for a pod of 256
)
H100 = dict(
    kind="NVIDIA H100 80GB HBM3",
    hbm_bytes=80 * 10**9,  # [h100]
    peak_flops=989e12,  # [h100], without sparsity
    hbm_bandwidth=3350e9,  # [h100]
    link_bandwidth=450e9,  # [h100], NVLink, 900 GB/s in both directions
    dcn_bandwidth=50e9,  # one port of 400 Gbps for each GPU, as in NVIDIA's DGX H100
)
CPU = dict(  # nominal figures of two cores of a server
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
            # Convolutions nested in loops overflow the stack of the compiler of libtpu 0.0.42.
            "--fibers_default_thread_stack_size=8388608",
            # Gradients of sharded weights are summed in one piece: the alternative, which computes
            # the product in one part for each chip while other parts are sent, takes longer to
            # compile and doubles the memory traffic.
            "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000",
        )
    )
)
GPU_ENVIRONMENT = dict(
    XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true",  # overlaps sums of gradients
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
    """Returns the config of a machine.

    Args:
      name: name of the machine.
      chip: figures of a chip, from the tables above.
      platform: "tpu", "gpu" or "cpu".
      processes: number of processes of a run, one on each host.
      local_devices: number of chips of each process.
      pairs_per_chip: number of image-report pairs that fit beside the full-size models.
      fsdp: number of chips over which parameters are sharded; other groups of chips hold replicas.
      slices: number of groups of chips that have a fast network of their own.
      topology: libtpu's name of the topology.
      remat: whether activations are rematerialised instead of kept.
      environment: environment variables to start the processes with.
    """
    return ConfigDict(
        dict(
            name=name,
            platform=platform,
            topology=placeholder(str) if topology is None else topology,
            slices=slices,
            processes=processes,
            local_devices=local_devices,
            chip=dict(chip),
            mesh=mesh(fsdp=fsdp, slices=slices),
            pairs_per_chip=pairs_per_chip,
            remat=dict(image="block" if remat else "none", text="layer" if remat else "none"),
            environment=environment or {},
        )
    )


def mesh(*, fsdp: int, slices: int) -> dict:
    """Returns the mesh of a machine; for the arguments see `machine`."""
    axes = dict(dcn=slices) if slices > 1 else {}
    # A bank of 512 prototypes is smaller than the sentences, so it is not sharded; a large bank can
    # be sharded over the same chips as parameters: --machine.mesh.bank_axis=fsdp.
    return dict(
        axes=axes | dict(data=-1, fsdp=fsdp),
        data_axes=(*axes, "data", "fsdp"),
        bank_axis=placeholder(str),
        fsdp_axis="fsdp" if fsdp > 1 else placeholder(str),
    )


def tpu(
    name: str,
    chip: dict,
    *,
    topology: str,
    chips: int,
    wraps: bool,
    slices: int = 1,
    **options,
) -> ConfigDict:
    """Returns the config of TPU slices whose hosts have four chips each.

    Args:
      name: name of the machine.
      chip: figures of a chip, from the tables above.
      topology: libtpu's name of the topology of a slice.
      chips: number of chips of each slice.
      wraps: whether the ends of each axis are linked; a line sends half as fast as a ring.
      slices: number of slices.
      **options: further arguments of `machine`.
    """
    if not wraps:
        chip = chip | dict(link_bandwidth=chip["link_bandwidth"] / 2)
    return machine(
        name,
        chip,
        platform="tpu",
        processes=slices * chips // 4,
        local_devices=4,
        slices=slices,
        topology=topology,
        environment=TPU_ENVIRONMENT,
        **options,
    )
