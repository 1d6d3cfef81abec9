// A spiking network from C: one picture, or as many frames as the model has steps, of mid grey.
#include <nc/neurons/nc.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, nc_error());
    return 1;
}

int main(int argc, char** argv) {
    nc_model model = 0;
    nc_info info;
    if (argc != 2) return fprintf(stderr, "usage: example model.safetensors\n"), 2;
    if (nc_load(argv[1], NULL, &model) != NC_OK) return fail("load");
    if (nc_get_info(model, &info) != NC_OK) return fail("info");

    const size_t steps = info.steps > 0 ? info.steps : 16;
    const size_t count = info.input_size * (info.temporal ? steps : 1);
    float* input = malloc(count * sizeof(float));
    float* logits = malloc(info.outputs * sizeof(float));
    if (input == NULL || logits == NULL) return 1;
    for (size_t i = 0; i < count; ++i) input[i] = 0.5f;

    if (nc_run(model, input, count, 1, steps, logits, info.outputs) != NC_OK) return fail("run");
    for (size_t k = 0; k < info.outputs; ++k) printf("%.9g\n", logits[k]);
    free(input);
    free(logits);
    return nc_free(model) == NC_OK ? 0 : fail("free");
}
