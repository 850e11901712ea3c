/* SPDX-License-Identifier: Apache-2.0 */
/**
 * replay.c - main() of a fuzzer without libFuzzer: runs the entry point on each file that it is given
 */

#include "check.h"
#include "fuzz.h"

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		static uint8_t data[1 << 16];
		FILE *file = fopen(argv[i], "rb");

		REQUIRE(file != NULL);
		LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof(data), file));
		fclose(file);
	}
	printf("ok %d inputs\n", argc - 1);
	return 0;
}
