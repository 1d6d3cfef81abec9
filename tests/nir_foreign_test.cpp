// Others' NIR: their networks run with their own semantics.
#include "datasets/events.h"
#include "tests/nir_networks.h"

using namespace nc;
using namespace nc::test;

TEST_CASE("an IF node resets to v_reset, compares strictly and starts at 0") {
    const NirNode g = chain({3},
                            {node("IF", {{"r", numbers({1, 1, 1})},
                                         {"v_threshold", numbers({1, 1, 2})},
                                         {"v_reset", numbers({0.5f, 0.5f, 0.5f})}})},
                            {3});
    // 1 is not above 1; 1.5 is, and leaves 0.5 whatever was there.
    CHECK(run_steps(read(g), {{1, 0.75f, 3}, {0.5f, 0.75f, 1}, {0.75f, 0.25f, 1}}) ==
          std::vector<float>{0, 0, 1, 1, 1, 0, 1, 0, 1});
    NirNode without = g;
    without.nodes["n0"].fields.erase("v_reset");  // as files of older writers: 0
    CHECK(run_steps(read(without), {{2, 2, 3}, {1, 0.5f, 2}}) ==
          std::vector<float>{1, 1, 1, 0, 0, 0});
    NirNode resistance = g;
    resistance.nodes["n0"].fields["r"] = numbers({2, 1, 0.5f});
    CHECK(run_steps(read(resistance), {{0.75f, 0.75f, 5}}) == std::vector<float>{1, 0, 1});
    NirNode mixed = g;  // no Neuron has these: a membrane
    mixed.nodes["n0"].fields["v_reset"] = numbers({0, 0.5f, -1});
    mixed.nodes["n0"].fields["v_threshold"] = numbers({-0.5f, 1, 0.75f});
    CHECK(run_steps(read(mixed), {{-0.25f, 2, 1}, {-1, 0.25f, 1}, {0, 1, 0.9f}}) ==
          std::vector<float>{1, 1, 1, 0, 0, 0, 0, 1, 1});
}

TEST_CASE("cycles wait a step where they are entered, whatever the order of nodes and edges") {
    // input -> a -> b -> a, with a self-loop on b and a second cycle behind.
    NirNode g = chain({1}, {}, {1});
    const auto weight = [](float w) { return node("Linear", {{"weight", numbers({w}, {1, 1})}}); };
    for (const char* name : {"a", "b", "c", "d"}) g.nodes[name] = weight(1);
    g.edges = {{"input", "a"}, {"a", "b"}, {"b", "a"}, {"b", "b"},
               {"b", "d"},     {"d", "c"}, {"c", "d"}, {"d", "output"}};
    const auto delayed = [](const Graph& graph) {
        std::set<std::string> out;
        for (const Edge& e : graph.edges)
            if (e.delay > 0) {
                CHECK(e.delay == 1);
                out.insert(graph.nodes[e.from].name + ">" + graph.nodes[e.to].name);
            }
        return out;
    };
    const Graph graph = read(g);
    CHECK(delayed(graph) == std::set<std::string>{"b>a", "b>b", "c>d"});
    std::reverse(g.edges.begin(), g.edges.end());
    CHECK(delayed(read(g)) == std::set<std::string>{"b>a", "b>b", "c>d"});
    // a = x + b', b = a + b', d = b + c', c = d
    CHECK(run_steps(graph, {{1}, {0}, {0}}) == std::vector<float>{1, 3, 7});
    // Written and read again, the same edges wait.
    CHECK(delayed(read(graph_to_nir(graph))) == delayed(graph));
}

TEST_CASE(
    "a delay shifts by whole steps, each element by its own, and serves a cycle as its step") {
    NirNode g = chain({3}, {node("Delay", {{"delay", numbers({0, 2e-4f, 1e-4f})}})}, {3});
    const std::vector<std::vector<float>> x = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
    CHECK(run_steps(read(g), x) == std::vector<float>{1, 0, 0, 4, 0, 3, 7, 2, 6});
    CHECK(run_steps(read(g, 2e-4), x) == std::vector<float>{1, 0, 3, 4, 2, 6, 7, 5, 9});
    g.metadata["dt"] = {{}, std::vector<double>{1e-4}};  // the file's counts
    CHECK(run_steps(read(g, 2e-4), x) == std::vector<float>{1, 0, 0, 4, 0, 3, 7, 2, 6});
    g.nodes["n0"].fields["delay"] = numbers({-1, 0, 0});
    CHECK(contains(refused(g), "'n0' (Delay): a delay of -1"));

    NirNode loop = chain({1}, {}, {1});
    loop.nodes["sum"] = node("Scale", {{"scale", numbers({1})}});
    loop.nodes["wait"] = node("Delay", {{"delay", numbers({2e-4f})}});
    loop.edges = {{"input", "sum"}, {"sum", "wait"}, {"wait", "sum"}, {"sum", "output"}};
    const Graph graph = read(loop);
    CHECK(run_steps(graph, {{1}, {0}, {0}, {0}, {0}}) == std::vector<float>{1, 0, 1, 0, 1});
    CHECK(run_steps(read(graph_to_nir(nir_form(graph))), {{1}, {0}, {0}, {0}, {0}}) ==
          std::vector<float>{1, 0, 1, 0, 1});
}

TEST_CASE("maps of one row, sums over windows and nested graphs are understood") {
    std::vector<float> w(2 * 1 * 3);
    for (size_t i = 0; i < w.size(); ++i) w[i] = float(i + 1);
    NirNode conv = node("Conv1d", {{"input_shape", {{}, std::vector<int64_t>{4}}},
                                   {"weight", numbers(w, {2, 1, 3})},
                                   {"stride", {{}, std::vector<int64_t>{1}}},
                                   {"padding", {{}, std::vector<int64_t>{1}}},
                                   {"dilation", {{}, std::vector<int64_t>{1}}},
                                   {"groups", {{}, std::vector<int64_t>{1}}},
                                   {"bias", numbers({0, 0.5f})}});
    const NirNode line = chain({1, 4}, {conv}, {2, 4});
    // Rows of [1, 4, 2]: both channels of each place.
    const std::vector<float> want = {8, 17.5f, 14, 32.5f, 20, 47.5f, 11, 32.5f};
    CHECK(run_steps(read(line), {{1, 2, 3, 4}}) == want);
    const NirNode again = graph_to_nir(nir_form(read(line)));
    CHECK(same_tree(again.nodes.at("n0"), conv));
    NirNode same = line;
    same.nodes["n0"].fields["padding"] = {{}, std::vector<std::string>{"same"}};
    CHECK(run_steps(read(same), {{1, 2, 3, 4}}) == want);
    // An even kernel: what does not halve goes behind.
    same.nodes["n0"].fields["weight"] = numbers({1, 10, 2, 20}, {2, 1, 2});
    CHECK(run_steps(read(same), {{1, 2, 3, 4}}) ==
          std::vector<float>{21, 42.5f, 32, 64.5f, 43, 86.5f, 4, 8.5f});

    const NirNode pool = node(
        "SumPool2d",
        {{"kernel_size", whole({2, 2})}, {"stride", whole({2, 2})}, {"padding", whole({0, 0})}});
    const NirNode map = chain({1, 2, 4}, {pool}, {1, 1, 2});
    CHECK(run_steps(read(map), {{1, 2, 3, 4, 5, 6, 7, 8}}) == std::vector<float>{14, 22});
    CHECK(same_tree(graph_to_nir(read(map)), map));

    NirNode outer = chain({1}, {}, {1});
    NirNode inner = chain({1}, {node("Scale", {{"scale", numbers({3})}})}, {1});
    inner.edges.emplace_back("n0", "n0");
    outer.nodes["rec"] = inner;
    outer.edges = {{"input", "rec"}, {"rec", "output"}};
    const Graph flat = read(outer);
    CHECK(find_node(flat, "rec.n0") < flat.nodes.size());
    CHECK(run_steps(flat, {{1}, {0}, {1}}) == std::vector<float>{3, 9, 30});
}

TEST_CASE("features of a flattened map keep the file's order") {
    // (2, 1, 2) flattened is c0w0 c0w1 c1w0 c1w1; rows of the map come channel by channel here.
    const NirNode flatten = node("Flatten", {{"input_type", whole({2, 1, 2})},
                                             {"start_dim", {{}, std::vector<int64_t>{0}}},
                                             {"end_dim", {{}, std::vector<int64_t>{-1}}}});
    const NirNode scale = node("Scale", {{"scale", numbers({1, 10, 100, 1000})}});
    const NirNode linear = node("Linear", {{"weight", numbers({1, 2, 3, 4}, {1, 4})}});
    const NirNode wait = node("Delay", {{"delay", numbers({1e-4f, 1e-4f, 1e-4f, 1e-4f})}});
    const Graph g = read(chain({2, 1, 2}, {flatten, scale, wait, linear}, {1}));
    // [1, 2, 2]: c0w0 c1w0 c0w1 c1w1
    CHECK(run_steps(g, {{1, 2, 3, 4}, {0, 0, 0, 0}}) ==
          std::vector<float>{0, 1 * 1 + 30 * 2 + 200 * 3 + 4000 * 4});
    NirNode mixed = chain({2, 1, 2}, {flatten, scale}, {4});
    mixed.nodes["rec"] = node("Linear", {{"weight", numbers(std::vector<float>(16, 1), {4, 4})}});
    mixed.edges.emplace_back("n1", "rec");
    mixed.edges.emplace_back("rec", "n1");
    CHECK(contains(refused(mixed), "node 'n1': a flattened map from 'n0' or 'rec' is added"));
}

TEST_CASE("foreign graphs that are wrong are refused by name") {
    const NirNode good = chain({2}, {node("Scale", {{"scale", numbers({1, 2})}})}, {2});
    CHECK(refused(good) == "");
    NirNode g = good;
    g.edges.emplace_back("n0", "n7");
    CHECK(contains(refused(g), "[net.nir] the graph has an edge to or from 'n7'"));
    g = good;
    g.nodes["n0"].type = "Spline";
    CHECK(contains(refused(g), "node 'n0' (Spline): NIR's node 'Spline' is not known"));
    g = good;
    g.nodes["n0"].fields.clear();
    CHECK(contains(refused(g), "(Scale): scale is missing"));
    g = good;
    g.nodes["n0"].fields["gain"] = numbers({1});
    CHECK(contains(refused(g), "unknown field 'gain'"));
    g = good;
    g.nodes["n0"].fields["scale"] = numbers({1, 2, 3});
    CHECK(contains(refused(g), "scale"));
    g = good;
    g.nodes["n0"].fields["scale"] = numbers({1, std::nanf("")});
    CHECK(contains(refused(g), "scale holds nan"));
    g = good;
    g.nodes["output"].fields["shape"] = whole({3});
    CHECK(contains(refused(g), "shape (3) for an input (2)"));
    g = good;
    g.nodes["n0"] = node("Linear", {{"weight", numbers({}, {0, 2})}});
    CHECK(contains(refused(g), "weight is empty: (0, 2)"));
    g = good;
    g.metadata["dt"] = {{}, std::vector<double>{0}};
    CHECK(contains(refused(g), "dt is 0"));
    g = chain({4, 4, 4}, {node("Flatten", {{"start_dim", whole({1})}, {"end_dim", whole({-1})}})},
              {4, 16});
    CHECK(contains(refused(g), "flattens dimensions 1 to -1 of (4, 4, 4)"));
}

TEST_CASE("golden NIR: files of other programs are read, written back and read again, equal") {
    for (const char* name :
         {"cnn_sinabs.nir", "lif_norse.nir", "two_lif_neurons.nir", "braille_recurrent.nir"}) {
        const std::string path = golden(name);
        if (path.empty()) return;
        CAPTURE(path);
        const Graph g = from_nir(path).graph;
        const NirNode written = graph_to_nir(g);
        const Graph back = nir_to_graph(parse_nir(nir_bytes(written), path), path, default_dt);
        CHECK(same_graph(sorted(g), sorted(back)));
        CHECK(same_tree(written, graph_to_nir(back)));
    }
    const std::string bad = golden("invalid_subgraph.nir");
    const std::string what = error_of([&] { from_nir(bad); });
    CHECK(contains(what, "the graph 'lif1' has an edge to or from 'lif'"));
    CHECK(contains(what, "did you mean 'lif1'?"));
}

TEST_CASE("golden NIR: leaky neurons follow forward Euler") {
    const std::string path = golden("two_lif_neurons.nir");
    if (path.empty()) return;
    // tau 0.01, dt 1e-4: v += 0.01 (v_leak - v + x); v_leak 1.2 reaches 1 by itself.
    const Graph g = from_nir(path).graph;
    Compute compute;
    ForwardOptions how;
    how.T = 1000;
    const auto trains = spikes(g, Tensor::full<float>({1, 1}, 0), 1000);
    std::vector<float> want;
    float v = 0;
    for (int t = 0; t < 1000; ++t) {
        v += (1.2f - v) * float(1e-4 / double(0.01f));
        want.push_back(v > 1 ? 1.0f : 0.0f);
        if (v > 1) v = 0;
    }
    CHECK(std::count(want.begin(), want.end(), 1.0f) == 5);
    CHECK(trains.at("lif1") == want);
    CHECK(total({{"lif2", trains.at("lif2")}}) == 0);  // a threshold of 20
    // A coarser step is another trajectory.
    CHECK(spikes(from_nir(path, 1e-3).graph, Tensor::full<float>({1, 1}, 0), 1000).at("lif1") !=
          want);
}

TEST_CASE("golden NIR: a recurrent network of current-based neurons runs as its equations say") {
    const std::string path = golden("braille_recurrent.nir");
    if (path.empty()) return;
    const Graph g = from_nir(path).graph;
    const auto& fc1 = std::get<Linear>(g.nodes[find_node(g, "fc1")].op);
    const auto& rec = std::get<Linear>(g.nodes[find_node(g, "lif1.w_rec")].op);
    const auto& lif = std::get<Membrane>(g.nodes[find_node(g, "lif1.lif")].op);
    constexpr size_t T = 60, in = 12, out = 38;
    const std::vector<float> x = normal_values(T * in, 31, 8);
    // The same in double, a layer at a time; spikes far from a tie are the same.
    const double k_syn = 1e-4 / double(lif.tau_syn.data<float>()[0]),
                 k = 1e-4 / double(lif.tau.data<float>()[0]);
    const double w_in = double(lif.w_in.data<float>()[0]), r = double(lif.r.data<float>()[0]);
    std::vector<double> v(out), i(out), back(out), s(out);
    std::vector<float> want;
    for (size_t t = 0; t < T; ++t) {
        std::vector<double> drive(out);
        for (size_t o = 0; o < out; ++o) {
            drive[o] = double(fc1.bias.data<float>()[o]) + back[o];
            for (size_t n = 0; n < in; ++n)
                drive[o] += double(x[t * in + n]) * double(fc1.weight.data<float>()[n * out + o]);
        }
        for (size_t o = 0; o < out; ++o) {
            i[o] += k_syn * (w_in * drive[o] - i[o]);
            v[o] += k * (r * i[o] - v[o]);
            s[o] = v[o] > 1;
            if (v[o] > 1) v[o] = 0;
            want.push_back(float(s[o]));
        }
        for (size_t o = 0; o < out; ++o) {
            back[o] = double(rec.bias.data<float>()[o]);
            for (size_t n = 0; n < out; ++n)
                back[o] += s[n] * double(rec.weight.data<float>()[n * out + o]);
        }
    }
    // Step by step, each layer's spikes out of the network.
    Graph first = g;
    const size_t fc2 = find_node(first, "fc2");
    first.nodes[fc2].op = Add{};
    first.nodes[find_node(first, "lif2")].op = Add{};
    Compute compute;
    ForwardOptions how;
    how.temporal_input = true;
    const auto got = forward(compute, first, {}, Tensor::from(x, {T, 1, in}), how)
                         .output.value.to_vector<float>();
    CHECK(std::count(want.begin(), want.end(), 1.0f) > 20);
    CHECK(got == want);
}

TEST_CASE("golden NIR: the network from Sinabs knows N-MNIST's digits, run by NIR's semantics") {
    const std::string path = golden("cnn_sinabs.nir");
    const std::string data = path.empty() ? "" : data_root_or_skip("nmnist");
    if (data.empty()) return;
    const Graph g = from_nir(path).graph;
    const RecordingSource source = nmnist_source(data + "/nmnist/Test");
    const Framing framing = parse_framing("tonic:window=1ms");
    constexpr size_t T = 300, N = 10;
    REQUIRE(source.labels.size() == 100);
    Compute compute;
    ForwardOptions how;
    how.temporal_input = true;
    size_t right = 0;
    for (size_t first = 0; first < source.labels.size(); first += N) {
        Tensor x = compute.zeros({T, N, 34, 34, 2});
        for (size_t n = 0; n < N; ++n) {
            const Tensor frames = to_frames(source.recording(first + n), framing);
            for (size_t t = 0; t < std::min(T, frames.shape()[0]); ++t)
                x.slice(t, t + 1)
                    .reshape({N, 34, 34, 2})
                    .slice(n, n + 1)
                    .assign(frames.slice(t, t + 1));
        }
        const Tensor y = ops::sum_leading(compute, forward(compute, g, {}, x, how).output.value);
        const auto best = ops::argmax(compute, y);
        for (size_t n = 0; n < N; ++n) right += best[n] == source.labels[first + n];
    }
    MESSAGE(right << " of 100 right");
    CHECK(right >= 97);
}
