#!/usr/bin/env python3
"""CartPole against Gymnasium's CartPole-v1: trajectories recorded here, repeated by nc_test bit by bit."""
import os
import pathlib
import re

from checks import check, finish, have, need, program, skip, work

gymnasium, np = need("gymnasium", "numpy")
random = np.random.default_rng(0)


def balance(state, x_gain=0.3):
    """Upright and in the middle of the track for as long as one likes."""
    x, x_dot, theta, theta_dot = state
    return int(x_gain * x + 0.5 * x_dot + 10 * theta + 2 * theta_dot > 0)


policies = {"left": lambda s: 0, "right": lambda s: 1, "random": lambda s: int(random.integers(2)), "balance": balance,
            "drift": lambda s: balance(s, -0.3), "noisy": lambda s: balance(s) if random.random() < 0.8 else 0}


def record(environment, policy, seed):
    rows, over = [], False
    environment.reset(seed=seed)
    while not over:
        before = np.array(environment.unwrapped.state, np.float64)
        action = policy(before)
        seen, reward, terminated, truncated, _ = environment.step(action)
        after = np.array(environment.unwrapped.state, np.float64)
        assert np.array_equal(seen, after.astype(np.float32))
        over = terminated or truncated
        rows.append([*before, action, *after, reward, terminated, truncated])
    return rows


environment = gymnasium.make("CartPole-v1")
rows, lengths = [], {}
for name, policy in policies.items():
    episodes = [record(environment, policy, seed) for seed in range(10)]
    lengths[name] = [len(e) for e in episodes]
    rows += sum(episodes, [])
check("the recordings reach both ends", max(lengths["balance"]) == 500 and max(lengths["left"]) < 15, lengths)
np.save(work / "cartpole.npy", np.array(rows, np.float64))

if not (pathlib.Path(os.environ.get("NC_BUILD", "")) / "nc_test").exists():
    skip("every state, reward and end is ours", "nc_test is not built")
else:
    done = program("nc_test", "-tc=golden: cartpole*", NC_GOLDEN=str(work))
    said = re.search(r"(\d+) steps of (\d+) episodes", done.stdout)
    check(f"every state, reward and end of {len(rows)} steps is ours", said and said.groups() == (str(len(rows)), "60"), done.stdout)

# A policy trained here, played there: its weights as others read them.
if not have("safetensors"):
    skip("a policy of ours in Gymnasium", "no package safetensors")
else:
    from safetensors.numpy import load_file

    program("nc_train", "--task", "cartpole", "--quiet", "--out", work / "policy.safetensors", "--threads", 1)
    tensors = load_file(work / "policy.safetensors")
    layers = sorted({name.rsplit(".", 1)[0] for name in tensors})

    def act(state):
        x = state.astype(np.float32)
        for i, layer in enumerate(layers):
            x = tensors[layer + ".weight"] @ x + tensors[layer + ".bias"]
            x = np.maximum(x, 0) if i + 1 < len(layers) else x
        return int(np.argmax(x))

    returns = [len(record(environment, act, seed)) for seed in range(1000, 1100)]
    check("a policy of ours in Gymnasium", np.mean(returns) >= 475, returns)
finish()
