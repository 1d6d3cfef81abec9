// nc_convert: converts a trained network to a spiking one, and measures what came out.
#include <string>

#include "convert/commands.h"

int main(int argc, char** argv) {
    using namespace nc::program;
    typed_command = command_line(argc, argv);
    catch_interrupts();
    for (const Command& command : commands())
        if (argc > 1 && argv[1] == std::string(command.name))
            return command.run(argc - 1, argv + 1);
    return convert_command(argc, argv);
}
