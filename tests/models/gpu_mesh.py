"""A mesh of one device that is not there, for programs that follow the mesh's platform."""

from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from xgenmm_jax.training.sharding import AXES


def abstract_mesh(platform, kind):
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return AbstractMesh((1, 1, 1), AXES, (AxisType.Auto,) * 3, abstract_device=device)
