"""The error of a number

Every bound comes with a standard error. It has two parts: examples differ, and draws of z differ. More draws help
against the second part only.
"""

from matplotlib import pyplot

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={"network": "mlp", "hidden": (128,), "latent_dims": 8},
    training={"steps": 800, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/errors")

# %%
# The mean bound of the first n test digits, with its error, for one draw and for 64 draws per digit.
counts = [10, 20, 45, 90, 180]
figure, axis = pyplot.subplots(figsize=(7, 3.6), num="The mean bound and its standard error, by the number of digits")
for place, draws in ((0.96, 2), (1.04, 64)):
    scored = jensen.score(run, draws=draws)
    means = [scored.bound[:count].mean() for count in counts]
    errors = [scored.bound[:count].std() / count**0.5 for count in counts]
    monte_carlo = (scored.standard_error.square().sum().sqrt() / 180).item()
    print(f"{draws:2d} draws: {means[-1]:.2f} ± {errors[-1]:.2f} nats, of which {monte_carlo:.2f} from the draws")
    axis.errorbar([place * count for count in counts], means, errors, fmt="o", capsize=3, label=f"{draws} draws")
axis.set(xscale="log", xticks=counts, xlabel="digits", ylabel="ELBO, nats per digit")
axis.set_xticks(counts, [str(count) for count in counts])
axis.minorticks_off()
axis.legend()
