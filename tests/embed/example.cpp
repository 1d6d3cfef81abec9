// A spiking network from C++: one picture, or as many frames as the model has steps, of mid grey.
#include <cstdio>
#include <nc/io/model.h>
#include <nc/neurons/runtime.h>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: example model.safetensors\n"), 2;
    try {
        const nc::Model model = nc::load_model(argv[1]);
        nc::RuntimeOptions options;
        options.T = model.info.T > 0 ? std::size_t(model.info.T) : 16;
        options.temporal = !model.info.framing.empty();
        nc::Runtime runtime(model.graph, options);

        const std::size_t frames = options.temporal ? options.T : 1;
        const std::vector<float> input(frames * runtime.sample().elements(), 0.5f);
        std::vector<float> logits(runtime.outputs());
        runtime.run(input.data(), options.temporal, options.T, 1, logits.data());
        for (const float x : logits) std::printf("%.9g\n", double(x));
    } catch (const nc::Error& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
