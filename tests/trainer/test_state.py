import pytest
import torch

from tinyddpm.trainer.state import (
    FILES,
    Damaged,
    clear_state,
    differences,
    flat,
    load_state,
    read_state,
    save_state,
    unflat,
)

COUNTERS = {"steps": 3, "progress": 0.25}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros((), dtype=torch.uint8)}


def test_what_is_saved_is_read(tmp_path):
    assert load_state(tmp_path) is None
    save_state(tmp_path, COUNTERS, TENSORS)
    counters, tensors = load_state(tmp_path)
    assert counters == COUNTERS and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_state_that_is_cut_or_changed_anywhere_is_damaged(tmp_path):
    save_state(tmp_path, COUNTERS, TENSORS)
    path = tmp_path / FILES[0]
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i])
        with pytest.raises(Damaged):
            read_state(path)
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(Damaged):
            read_state(path)


def test_the_state_before_stands_in_for_a_damaged_one(tmp_path):
    for steps in (1, 2):
        save_state(tmp_path, {"steps": steps}, TENSORS)
    assert load_state(tmp_path)[0] == {"steps": 2}
    (tmp_path / FILES[0]).write_bytes(b"")
    assert load_state(tmp_path)[0] == {"steps": 1}
    (tmp_path / FILES[0]).unlink()
    assert load_state(tmp_path)[0] == {"steps": 1}
    (tmp_path / FILES[1]).write_bytes(b"x" * 100)
    with pytest.raises(Damaged, match="not as it was written .* begin anew with fresh=True"):
        load_state(tmp_path)


def test_a_disk_that_is_full_leaves_the_state_before(tmp_path, monkeypatch):
    save_state(tmp_path, {"steps": 1}, TENSORS)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyddpm.trainer.state.write_whole", full)
    with pytest.raises(OSError):
        save_state(tmp_path, {"steps": 2}, TENSORS)
    assert load_state(tmp_path)[0] == {"steps": 1}


def test_clearing_leaves_nothing_half_written_and_the_model(tmp_path):
    for name in (*FILES, "run.state.x7dk2m_a", "model.safetensors.p0s9fk2l", "model.safetensors", "run.lock"):
        (tmp_path / name).touch()
    clear_state(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "run.lock"]


def test_differences_are_named():
    assert differences({"a": 1, "b": [1, 2], "c": None}, {"a": 2, "b": (1, 2), "d": 4}) == "a 1 -> 2, d None -> 4"
    assert differences({"b": [1, 2]}, {"b": (1, 2)}) == ""


def test_optimizers_come_back_with_their_memory():
    def made():
        net = torch.nn.Linear(2, 3)
        return net, [torch.optim.Adam([net.weight]), torch.optim.SGD([net.bias], lr=0.1, momentum=0.9)]

    def step(net, optimizers, x):
        net(x).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    (net, optimizers), x = made(), torch.randn(5, 2)
    step(net, optimizers, x)
    other, other_optimizers = made()
    tensors = {name: tensor.clone() for name, tensor in flat(net, net, optimizers).items()}  # as a file would
    unflat(tensors, other, other, other_optimizers)
    for pair in ((net, optimizers), (other, other_optimizers)):
        step(*pair, x)
    assert torch.equal(net.weight, other.weight) and torch.equal(net.bias, other.bias)
    with pytest.raises(Damaged, match="of another network"):
        unflat(flat(net, net, optimizers), torch.nn.Linear(3, 3), net, optimizers)
